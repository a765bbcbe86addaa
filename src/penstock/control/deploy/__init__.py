"""What runs where: the deployment record, canaries, the Snapshot that gateways serve from, and the loop that starts replicas."""
