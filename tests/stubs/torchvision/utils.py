from torchvision._inert import names

globals().update(names('save_image'))
