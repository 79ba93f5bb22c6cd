"""Instances of faults that nobody was asked to plant: several of each kind, in trainings of several hosts."""
