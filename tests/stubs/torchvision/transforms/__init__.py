from torchvision._inert import InterpolationMode, names

globals().update(names('Compose', 'Normalize', 'RandomResizedCrop', 'Resize', 'ToTensor'))
__all__ = ['InterpolationMode']
