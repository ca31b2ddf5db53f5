"""The files that the networks of VBench's dimensions are published in."""

from __future__ import annotations

from evalkit.weights import Checkpoint

DINO = Checkpoint(
    key="dino-vitb16",
    file="dino_model/dino_vitbase16_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    size=343_242_485,
    licence="Apache-2.0",
    source="facebookresearch/dino",
)
MUSIQ = Checkpoint(
    key="musiq",
    file="pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    url="https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
    size=108_610_983,
    licence="CC BY-NC-SA 4.0 as republished by IQA-PyTorch (converted from google-research/musiq, Apache-2.0)",
    source="IQA-PyTorch, converted from the authors' checkpoint trained on SPAQ",
)
AMT = Checkpoint(
    key="amt",
    file="amt_model/amt-s.pth",
    url="https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
    size=12_038_359,
    licence="CC BY-NC-SA 4.0 (the authors' code: CC BY-NC 4.0): research use, not commercial use",
    source="the authors of AMT (Nankai University), on Hugging Face",
    sha256="07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
)
RAFT = Checkpoint(
    key="raft",
    file="raft_model/models/raft-things.pth",
    url="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
    member="models/raft-things.pth",
    size=21_108_000,
    licence="BSD-3-Clause (the repository's; none stated for the weights alone)",
    source="princeton-vl/RAFT",
)
VICLIP = Checkpoint(
    key="viclip",
    file="ViCLIP/ViClip-InternVid-10M-FLT.pth",
    url="https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
    size=1_710_545_812,
    licence="not stated for the weights (InternVideo code: Apache-2.0; InternVid data: CC BY-NC-SA 4.0)",
    source="OpenGVLab/InternVideo",
    sha256="7a4d6ad6eac6632db3693f4b97f9f8f6445b65b1e139a6fc6686150522238c56",
)
UMT = Checkpoint(
    key="umt",
    file="umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
    url="https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/l16_ptk710_ftk710_ftk400_f16_res224.pth",
    size=607_024_201,
    licence="MIT",
    source="OpenGVLab/unmasked_teacher",
    sha256="bfee78a03bf806fbc0c216309e8f92792011b7db6556fa860e9d869c1e69fecd",
)
TAG2TEXT = Checkpoint(
    key="tag2text",
    file="caption_model/tag2text_swin_14m.pth",
    url="https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
    size=4_478_705_095,
    licence="Apache-2.0",
    source="xinyu1205/recognize-anything",
    sha256="4ce96f0ce98f940a6680d567f66a38ccc9ca8c4e638e5f5c5c2e881a0e3502ac",
)
GRIT = Checkpoint(
    key="grit",
    file="grit_model/grit_b_densecap_objectdet.pth",
    url="https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/grit_b_densecap_objectdet.pth",
    size=417_381_733,
    licence="MIT",
    source="JialianW/GRiT",
    sha256="53b6e9b3fd948eac55b574c9b6f94ad0743dff46ba449df7ac2d33009ee92ef1",
)
LAION = Checkpoint(
    key="laion-aesthetic",
    file="aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    url="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
    size=4_071,
    licence="MIT",
    source="LAION-AI/aesthetic-predictor",
)


def _clip(model: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        key=f"clip-{model.lower()}",
        file=f"clip_model/{model}.pt",
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{model}.pt",
        size=size,
        licence="MIT",
        source="openai/CLIP",
        sha256=sha256,
        archive=True,
    )


CLIP_B32 = _clip("ViT-B-32", 353_976_522, "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af")
CLIP_L14 = _clip("ViT-L-14", 932_768_134, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836")
