"""What a training step is made of on a CPU: compiled for bf16, and of torch's operations in a faster order else."""
