from torchvision._inert import InterpolationMode

__all__ = ['InterpolationMode']
