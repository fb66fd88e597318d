"""Fitting of a model: batches, phases and the loop; ``zsd_core.train`` is the command."""
