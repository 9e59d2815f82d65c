"""D²4FAD, written from the equations of its paper.

Dong et al., Dual Distillation for Few-Shot Anomaly Detection, ICLR 2026, arXiv 2603.01713.

config      the paper's values, the quick preset, the ablations
student     mirrored decoder: from the teacher's last stage back to its first three
weighting   learned weight of each support image, per scale
losses      the two distillation losses and the anomaly map
networks    student and weights together; their initial values, arithmetic and reference checkpoints
episodes    queries and their supports, step by step
training    the losses of a step, Adam, the steps of an epoch
detector    pretrain, adapt, score
"""
