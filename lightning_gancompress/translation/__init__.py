"""Translation of pictures by model files, of torch or ONNX Runtime. Imports no Lightning."""

from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.opening import open_model
from lightning_gancompress.translation.translator import Translated, Translator

__all__ = ["ImageModel", "Translated", "Translator", "open_model"]
