"""How a model is fitted: batches, phases and the loop; ``zsd_core.train`` is the command."""
