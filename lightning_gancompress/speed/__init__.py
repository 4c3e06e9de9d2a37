"""What makes a generator faster on this machine, measured in seconds. Imports no Lightning."""

from lightning_gancompress.speed.advice import SpeedAdvice, read_advice, write_advice
from lightning_gancompress.speed.measuring import measure_speed

__all__ = ["SpeedAdvice", "measure_speed", "read_advice", "write_advice"]
