"""Training. recipe: what is trained and how; loop: a run of it; stages: what a family's training is to both; a folder a
family: its stages, their losses, its TRAINING.
"""
