"""Runs on SLURM, or as jobs on this machine, through submitit."""

from evalkit.cluster.cancel import cancel
from evalkit.cluster.config import EXAMPLE, ClusterConfig, read_config
from evalkit.cluster.ledger import Submission
from evalkit.cluster.status import Overview, overview

__all__ = ["EXAMPLE", "ClusterConfig", "Overview", "Submission", "cancel", "overview", "read_config"]
