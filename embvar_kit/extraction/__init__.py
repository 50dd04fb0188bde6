"""The pass of a corpus through a model: plan, forward, accumulate, checkpoint."""
