from torchvision._inert import names

globals().update(names('CIFAR10', 'CIFAR100', 'MNIST', 'KMNIST', 'FashionMNIST', 'ImageFolder'))
