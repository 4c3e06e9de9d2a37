"""Fine-tuning of the small networks."""

from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.finetune.phase import FinetunePhase

__all__ = ["Distillation", "FinetunePhase"]
