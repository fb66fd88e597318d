"""The learning half: models, data, training and metrics, for workstations; needs torch."""
