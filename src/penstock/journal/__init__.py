"""The exchange log: writer, reader, shipper and its sinks."""
