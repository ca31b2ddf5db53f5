"""Tag2Text: names what a frame shows (3429 tags), then writes a sentence about the frame and its tags.

Huang et al., "Tag2Text: Guiding Vision-Language Model via Image Tagging" (ICLR 2024, arXiv:2303.05657), as in
vbench/third_party/tag2Text. A Swin-B encodes the frame; a tagging head asks it for every tag; an encoder reads the tags
found beside the frame; a decoder writes. The tagging head's two layers are also the first two of the tag encoder.

Axes: B frames, C channels, H height, W width, P patches and their mean, G tags, N tokens, D width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from evalkit.backbones import published
from evalkit.backbones._beam import Rules, beam_search
from evalkit.backbones._captioner import CrossLayer, TextDecoder, TextEncoder, Writing, stack
from evalkit.backbones.base import Extractor, Runtime, SelectedFrames
from evalkit.backbones.bert_vocab import VOCABULARY, load_tokenizer, write_out
from evalkit.backbones.images import DTYPES, standardize
from evalkit.backbones.viclip import middle_frames
from evalkit.backbones.vit import Linear
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

if TYPE_CHECKING:
    from transformers import BertTokenizer

CHECKPOINT = published.TAG2TEXT
FRAMES = 16
SIDE, WINDOW = 384, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TAGS = 3429
TAG_THRESHOLD = 0.7
UNTOLD_TAGS = (127, 3265, 3338, 3351, 3355, 3359)
"""Tags that are never told to the captioner."""
TAG_TOKENS = 40

PROMPT = "a picture of "
BEAMS = 3
LENGTHS = (10, 30)  # of a caption in tokens, with the prompt

MADE_HERE = re.compile(r".*\.(position_ids|relative_position_index|attn_mask)")
"""Keys of the checkpoint that are no weights: tables that follow from the network's sizes."""

# What the checkpoint calls a tensor, and what it is called here; all rules that fit apply, in this order.
RENAMED = (
    (r"^visual_encoder\.layers\.0\.downsample\.", "image.layers.1.downsample."),  # timm counts them to the next stage
    (r"^visual_encoder\.layers\.1\.downsample\.", "image.layers.2.downsample."),
    (r"^visual_encoder\.layers\.2\.downsample\.", "image.layers.3.downsample."),
    (r"^visual_encoder\.", "image."),
    (r"^text_decoder\.cls\.predictions\.decoder\.weight$", "text_decoder.embeddings.word_embeddings.weight"),
    (r"^text_decoder\.cls\.predictions\.((transform|decoder)\.)?", "text_decoder."),
    (r"^text_decoder\.bert\.", "text_decoder."),
    (r"^label_embed\.", "tagging.labels."),
    (r"^fc\.", "tagging."),
    (r"^vision_multi\.", "tagging."),
    (r"\.encoder\.layer\.", ".layers."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense\.", "attention.out."),
    (r"attention\.output\.", "attention."),
    (r"\.intermediate\.dense\.", ".mlp.fc_1."),
    (r"\.output\.dense\.", ".mlp.fc_2."),
    (r"\.output\.", ".mlp."),
    (r"\.LayerNorm\.", ".norm."),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; the default is the published one."""

    image_width: int = 128
    image_blocks: tuple[int, ...] = (2, 2, 18, 2)
    image_heads: tuple[int, ...] = (4, 8, 16, 32)
    width: int = 768
    heads: int = 12
    tagging_heads: int = 4
    tagging_layers: int = 2
    encoder_layers: int = 12
    decoder_layers: int = 12
    vocabulary: int = VOCABULARY + 2  # [DEC] and [ENC] begin a caption and a list of tags


class TaggingHead(nn.Module):
    """Asks an image for every tag, by cross-attention alone: the tags do not see each other."""

    def __init__(self, shape: Shape, memory: int) -> None:
        super().__init__()
        self.heads = shape.tagging_heads
        self.labels = nn.Embedding(TAGS, shape.width)
        self.layers = nn.ModuleList(CrossLayer(shape.width, memory) for _ in range(shape.tagging_layers))
        self.W, self.b = nn.Parameter(torch.zeros(1, TAGS, shape.width)), nn.Parameter(torch.zeros(1, TAGS))

    def forward(self, image_BPD: Tensor) -> Tensor:
        """Logits `(B, G)`."""
        x_BGD = self.labels.weight[None]
        for layer in stack(self.layers):
            x_BGD = layer(x_BGD, layer.crossattention.remember(image_BPD, self.heads))
        return (self.W * x_BGD).sum(-1) + self.b


class Tag2Text(nn.Module):
    """The four networks. Tensors are named as `own_name` says."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformer

        shape = shape or Shape()
        self.image = SwinTransformer(
            img_size=SIDE,
            window_size=WINDOW,
            embed_dim=shape.image_width,
            depths=shape.image_blocks,
            num_heads=shape.image_heads,
            num_classes=0,
        )
        memory = shape.image_width * 2 ** (len(shape.image_blocks) - 1)
        self.text_decoder = TextDecoder(shape.decoder_layers, shape.heads, shape.vocabulary, shape.width)
        self.tag_encoder = TextEncoder(shape.encoder_layers, shape.heads, shape.vocabulary, shape.width, memory)
        # The last to be loaded: what it shares with the tag encoder stands in the checkpoint under both names, and the
        # official package reads this one last.
        self.tagging = TaggingHead(shape, memory)
        for own, other in zip(stack(self.tag_encoder.layers), stack(self.tagging.layers), strict=False):
            own.share(other)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Images to `(B, P, D)`: the mean over the patches, then the patches."""
        patches_BPD = self.image.forward_features(x_BCHW).flatten(1, 2)
        return torch.cat([patches_BPD.mean(dim=1, keepdim=True), patches_BPD], dim=1)


def own_name(name: str) -> str:
    """What a tensor of the checkpoint is called here."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def load_weights(network: Tag2Text, store: WeightStore) -> None:
    """Give a network on the meta device the weights of the official checkpoint, and copy nothing else from it.

    Two thirds of the file are the state of the optimiser it was trained with. Tensors that two parts share stand in it
    twice; the later one counts, as in the official package.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    tensors = store.state_dict(CHECKPOINT, mapped=True)
    load_strict(network, {own_name(k): v.clone() for k, v in tensors.items() if not MADE_HERE.fullmatch(k)}, CHECKPOINT)
    _make_tables(network.image)


def _make_tables(image: nn.Module) -> None:
    """Fill in the buffers of timm's Swin, which no checkpoint need hold and the meta device left empty."""
    from timm.models.swin_transformer import SwinTransformerBlock, get_relative_position_index

    for block in image.modules():
        if isinstance(block, SwinTransformerBlock):
            block.register_buffer("attn_mask", block.get_attn_mask(), persistent=False)
            block.attn.relative_position_index = get_relative_position_index(*block.attn.window_size)


def _pack(network: nn.Module) -> None:
    """Lay the weights out once for the CPU's matrix kernels: twice as fast for 3429 tags a frame."""
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                packed = Linear(layer.weight, layer.bias)
                packed.pack()
                setattr(module, name, packed)


@cache
def tag_names() -> tuple[str, ...]:
    """The tags by index."""
    path = Path(__file__).parents[1] / "reference_data" / "tag2text_tags.txt"
    names = tuple(path.read_text(encoding="utf-8").splitlines())
    assert len(names) == TAGS
    return names


def found_tags(logits_BG: Tensor) -> list[list[str]]:
    """The tags of each frame that the captioner is told of."""
    found_BG = logits_BG.float().sigmoid() > TAG_THRESHOLD
    found_BG[:, UNTOLD_TAGS] = False
    return [[tag_names()[index] for index in found_G.nonzero()[:, 0].tolist()] for found_G in found_BG.cpu()]


def preprocess(frames_BHWC: Frames, device: str) -> Tensor:
    """Frames to `(B, 3, 384, 384)`. Those of GIFs and stills come at their own size and are scaled by Pillow."""
    if frames_BHWC.shape[1:3] != (SIDE, SIDE):
        images = (Image.fromarray(frame_HWC) for frame_HWC in frames_BHWC)
        frames_BHWC = np.stack([np.asarray(i.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for i in images])
    x_BCHW = torch.from_numpy(frames_BHWC).to(device).permute(0, 3, 1, 2).float()
    return standardize(x_BCHW, MEAN, STD)


class Captioner:
    """Frames `(B, H, W, 3)` to captions."""

    def __init__(self, network: Tag2Text, tokenizer: BertTokenizer, runtime: Runtime) -> None:
        self.network = network.to(runtime.device, DTYPES[runtime.precision]).eval()
        if runtime.compile:
            network.image.compile()  # the compiler picks its own weight layout and refuses a packed one
        else:
            _pack(network)
        self.runtime = runtime
        self.tokenizer = tokenizer
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
        named: list[int] = [*tokenizer.convert_tokens_to_ids(["[ENC]", "[DEC]", "[SEP]"])]  # type: ignore[misc]
        self.tags_begin, self.caption_begins, self.end = named

    @torch.inference_mode()
    def __call__(self, frames_BHWC: Frames) -> list[str]:
        images, tags = [], []
        for start in range(0, len(frames_BHWC), self.runtime.batch):
            x_BCHW = preprocess(frames_BHWC[start : start + self.runtime.batch], self.runtime.device)
            images.append(self.network.encode(x_BCHW.to(DTYPES[self.runtime.precision])))
            tags += found_tags(self.network.tagging(images[-1]))
        tokens = self.write(self.read_tags(tags, torch.cat(images)))
        return [self._text(caption) for caption in tokens]

    def read_tags(self, tags: Sequence[Sequence[str]], image_BPD: Tensor) -> Tensor:
        """What the decoder writes about, `(B, N, D)`; a long list of tags is cut off, a short one is padded."""
        texts = [" | ".join(names) for names in tags]
        read: Any = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=TAG_TOKENS, return_tensors="pt"
        )
        tokens_BN, real_BN = read["input_ids"].to(image_BPD.device), read["attention_mask"].to(image_BPD.device)
        tokens_BN[:, 0] = self.tags_begin
        memory_BND: Tensor = self.network.tag_encoder(tokens_BN, real_BN, image_BPD)
        return memory_BND

    def write(self, memory_BND: Tensor) -> list[list[int]]:
        """Captions in tokens: the beginning, the prompt, and what was written; without an end."""
        prompt = [self.caption_begins, *self.tokenizer(PROMPT, add_special_tokens=False)["input_ids"]]
        rules = Rules(BEAMS, *LENGTHS, end=self.end)
        return beam_search(
            Writing(self.network.text_decoder, memory_BND), prompt, len(memory_BND), rules, self.runtime.device
        )

    def _text(self, tokens: list[int]) -> str:
        return write_out(self.tokenizer, tokens)[len(PROMPT) :]


def chosen_frames(n_frames: int) -> list[int]:
    """The frames that captions are written about: the first six of the sixteen that the official package decodes.

    For its beam search the official code repeats each frame's features three times, and then transformers 4.33, which
    it is pinned to, repeats them another three times; what is too many is cut off at the end. So the caption of frame i
    describes frame i // 3, and nothing is said about frames 6 to 15.
    """
    return middle_frames(n_frames, FRAMES)[: -(-FRAMES // BEAMS)]


class ClipCaptions:
    """A clip's chosen frames to the sixteen captions of the official package, an array of text."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner

    def __call__(self, clip: Clip, frames_THWC: Frames) -> Array:
        captions = self.captioner(frames_THWC)
        return np.array([captions[i // BEAMS] for i in range(FRAMES)])


def load_captioner(store: WeightStore, runtime: Runtime) -> Captioner:
    """Build the captioner from the official checkpoint and BERT's vocabulary.

    Raises:
        UserError: a file is missing or is not what it should be.
    """
    tokenizer = load_tokenizer(store)
    with torch.device("meta"):
        network = Tag2Text()
    load_weights(network, store)
    return Captioner(network, tokenizer, runtime)


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """The extractor of sixteen captions; raises as `load_captioner`."""
    return SelectedFrames(chosen_frames, ClipCaptions(load_captioner(store, runtime)))
