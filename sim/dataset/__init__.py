"""Training sets on disk: shards, who may write them, and the engines that make them."""
