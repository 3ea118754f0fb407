"""What is measured: models by their public surface, conventional codecs as anchors, and the images."""
