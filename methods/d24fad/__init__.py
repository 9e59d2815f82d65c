"""D²4FAD: dual distillation for few-shot anomaly detection (ICLR 2026), written from its equations.

config      the paper's values, the quick preset, the ablations
student     mirrored decoder: from the teacher's last stage back to its first three
weighting   learned weight of each support image, per scale
losses      the two distillation losses and the anomaly map
networks    student and weights together; their initial values, arithmetic and reference checkpoints
episodes    queries and their supports, step by step
training    the losses of a step, Adam, the steps of an epoch
detector    pretrain, adapt, score
"""
