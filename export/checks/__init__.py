"""Everything that compares: images, traces, differences and agreement."""
