"""Beyond the paper: other likelihoods, other object models, and questions to a trained model."""
