"""The specs of resources, as `penstock apply` and the API take them."""
