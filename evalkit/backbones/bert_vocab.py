"""The vocabulary of BERT (uncased) and its tokenizer, which the captioners of Tag2Text and GRiT share.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (NAACL 2019, arXiv:1810.04805). The official
package fetches it from the Hugging Face hub under the id `bert-base-uncased`; the folder here bears the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evalkit.errors import UserError
from evalkit.weights import Checkpoint, WeightStore

if TYPE_CHECKING:
    from transformers import BertTokenizer

BERT_VOCAB = Checkpoint(
    key="bert-vocab",
    file="bert-base-uncased/vocab.txt",
    url="https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt",
    size=231_508,
    licence="Apache-2.0",
    source="google-bert/bert-base-uncased",
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
SPECIAL_TOKENS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
VOCABULARY = 30_522


def load_tokenizer(store: WeightStore) -> BertTokenizer:
    """The tokenizer of lower-cased English WordPieces, made anew at each call: a captioner may add tokens of its own.

    Raises:
        UserError: the vocabulary is missing or is another one.
    """
    from transformers import BertTokenizer

    store.sha256(BERT_VOCAB)
    path = store.path(BERT_VOCAB)
    tokens = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(tokens) != VOCABULARY or any(tokens[index] != token for token, index in SPECIAL_TOKENS.items()):
        raise UserError(
            f"The file {path} is not the vocabulary of BERT (uncased).",
            f"Fetch it again with `m4v-eval weights pull {BERT_VOCAB.key} --force`.",
        )
    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(path.parent, local_files_only=True, do_lower_case=True)
    return tokenizer


def write_out(tokenizer: BertTokenizer, tokens: list[int]) -> str:
    """The text that tokens stand for, without the special ones."""
    return join_pieces(tokenizer.convert_ids_to_tokens(tokens, skip_special_tokens=True))


SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What loses the spaces around it, in this order."""


def join_pieces(pieces: Iterable[str]) -> str:
    """Join WordPieces into a text, as transformers 4.33 did; later releases leave spaces around an apostrophe."""
    text = " ".join(pieces).replace(" ##", "").strip()
    for spaced in SPACED:
        text = text.replace(spaced, spaced.strip())
    return text
