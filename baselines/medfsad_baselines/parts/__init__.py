"""What several baselines share: features and their neighbours, layers, training, and other processes."""
