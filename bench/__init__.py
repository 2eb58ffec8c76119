"""Benchmarks, run by hand, one module each: `python -m bench.serve --help`.

serve        this service against its bare path and its peers (serve_measure, embedders, litserve_app, bare)
train        a training step against its bare parts, and the choice of captions (train_parts, steps, diffusion)
evaluate     evaluation against CLIP_benchmark, and the diffusion score (evaluate_race, diffusion)
swap         a swap of weights under load (swap_server, swap_check, file_aliases)
jobs         what jobs cost beside their work (job_lists)
decode_memory, flops   the figures behind two documents
faults/      what kills, cuts and fills a running system

What they share: options (each written once), servers and load, child (a process for a function), rounds (who
takes turns), memory, report (tables and targets), and sets and weights (made from seeds).
"""
