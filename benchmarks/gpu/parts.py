"""The parts, in the order of their numbers. Their limits add up to less than seven minutes."""

from typing import Final

from benchmarks.gpu.part import Part

PARTS: Final = (
    Part(0, "ceilings of the card", 20, "ceilings", has_engine=False),
    Part(1, "attention beside float64", 25, "attention", has_engine=False),
    Part(2, "ZeRO-3 on the card beside float32 on the CPU", 65, "equality"),
    Part(3, "memory after an engine is closed", 15, "closing"),
    Part(4, "peak memory beside sft plan", 55, "peaks"),
    Part(5, "share of the arithmetic that is used (MFU)", 125, "waterfall"),
    Part(6, "profile of two steps", 20, "profiled"),
    Part(7, "a checkpoint while training goes on", 20, "saving"),
    Part(8, "plain transformers, same rows", 50, "peer"),
    Part(9, "a run twice", 10, "twice"),
)
ALL_SECONDS: Final = 405.0
"""Of all parts together, with the start of the first."""
ORDER: Final = (0, 1, 9, 3, 2, 5, 6, 8, 4, 7)
"""In which they run: what is wrong comes to light first, what matters least is cut off if time runs out."""
