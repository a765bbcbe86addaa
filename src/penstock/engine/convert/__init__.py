"""From safetensors to what the engine loads: OpenVINO graphs written operation by operation, without torch."""
