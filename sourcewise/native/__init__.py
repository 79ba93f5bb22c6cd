"""C++ for CPUs: compiled on first use, told in a run's first line, and done without where it cannot be had.

`training/` is what a bf16 training step is made of, `search/` a T5's generation in int8. `compiled.py` compiles and
loads them; `codes.py` lists them for whoever asks what is in use.
"""
