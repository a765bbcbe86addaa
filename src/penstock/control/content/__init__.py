"""What was said in requests: opened for those who may, its keys, forgetting, and feedback to train on."""
