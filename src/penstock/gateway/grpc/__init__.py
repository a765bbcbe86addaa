"""The gRPC process: the Open Inference Protocol, said to the gateway's workers as HTTP."""
