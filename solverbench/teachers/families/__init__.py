"""Families of checkpoints: how each kind of file or folder becomes a teacher."""
