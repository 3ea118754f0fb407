"""Training: data on the device, losses, the loop, recipes. Imports neither the entropy coder nor the codecs."""
