"""Entry point of ranks above 0: ``python -m trainers.learner.follow``, which rank 0 starts itself or torchrun starts beside it."""

from __future__ import annotations

from trainers.learner.deepspeed import follow

if __name__ == "__main__":
    follow()
