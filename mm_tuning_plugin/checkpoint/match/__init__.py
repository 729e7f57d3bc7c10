"""Match the tensors of a file with the parameters of a backbone."""
