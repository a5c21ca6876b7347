"""Classic BPF: the instructions that filters are made of, and a small assembler."""

from __future__ import annotations

Instruction = tuple[int, int, int, int]
Program = list[Instruction]
"""(code, jt, jf, k) each, include/uapi/linux/filter.h."""
