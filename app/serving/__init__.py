"""The serving core: admission and batching, the engine that runs batches, class weights, and swaps."""
