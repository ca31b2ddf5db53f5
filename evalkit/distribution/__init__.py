"""Distances between sets of videos: FID, KID and FVD, and the Inception Score. A suite of its own, and never VBench.

These measures judge a set, not a video. They need a reference (except the Inception Score), they are compared between
models that were measured on equally many videos and the same reference, and they say nothing of prompts.

| protocol | features | of a video | estimator |
|---|---|---|---|
| `fid/inception-2015` | Inception-v3 of 2015, 2048 pooled | N frames, evenly spread | Fréchet distance of Gaussians |
| `kid/inception-2015` | the same | the same | unbiased MMD² of a cubic kernel |
| `is/inception-2015` | its logits without bias, 1008 | the same | exp of the mean divergence from the marginal |
| `fvd/i3d-400` | I3D of Kinetics-400, 400 logits | the middle 16 frames | Fréchet distance of Gaussians |

Covariances divide by n - 1 throughout, as the FID's reference code and the original FVD do (StyleGAN-V divides by n).

What was not run: the published weights. Both networks are the publishers' own (torch-fidelity's class, DeepMind's I3D
as StyleGAN-V's TorchScript archive); the tests run the first with drawn weights, and a small archive of the second's
form in its place. The numerics are held to torch-fidelity's.

EvalCrafter is not implemented: no licence was found in its repository, which holds changed copies of some ten other
projects and runs from a Docker image. `reference_data/evalcrafter.csv` holds what was published. Of its 17 measures
the Inception Score reads the same weights as `is/inception-2015`; the choice of frames differs, so do the numbers.
"""

from evalkit.distribution.evaluate import Request, evaluate
from evalkit.distribution.frechet import Gaussian, frechet_distance
from evalkit.distribution.inception_score import inception_score
from evalkit.distribution.kernel import kernel_distance
from evalkit.distribution.measures import MEASURES

__all__ = ["MEASURES", "Gaussian", "Request", "evaluate", "frechet_distance", "inception_score", "kernel_distance"]
