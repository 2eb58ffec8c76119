"""The serving core: admission and batching, the engine that runs batches, and the class weights."""
