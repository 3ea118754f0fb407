"""Entropy models: the networks that predict each symbol's distribution, and the one exact path that runs them."""
