"""safetensors, the directories of `save_pretrained`, and optimizers' states beside the weights."""
