"""TensorFlow's checkpoints, V2 and V1, and which of them a path stands for."""
