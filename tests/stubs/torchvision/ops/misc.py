from torchvision._inert import names

globals().update(names('FrozenBatchNorm2d'))
