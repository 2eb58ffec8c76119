"""Benchmarks, which are run by hand. Each is a module: `python -m bench.serve --help`.

serve        this service against its bare path and its peers (serve_measure, embedders, litserve_app, bare)
train        a training step against its bare parts (train_parts, steps, bare_step)
evaluate     evaluation against CLIP_benchmark, and the diffusion score (evaluate_race, diffusion)
swap         a swap of weights under load (swap_system, swap_check, version_set)
versions     what it costs to serve a thousand versions of one base (version_set)
neighbours   what a key notices of another one that floods the service (flood)
jobs         the overhead of jobs (job_lists, curves)
folders      embedding a folder against the bare path, and searches (folders_embed, folders_search)
gpu          tests, speed and memory on a GPU, on one page (gpu_parts)
rehearse     training at real sizes, beside its estimates (rehearsal_weights, rehearsal_estimate)
quantisation how many nearest images the types of /v2/embed find again
decode_memory, flops   the figures behind two documents
negatives    what a reader of the texts alone tells of hard negatives
claims       how long a claim takes while 50 workers claim at once
faults/      faults that are injected into a running system

The benchmarks share these modules: options, servers and load, child (a process for a function), rounds (turns of
contestants), memory, report (tables and targets), and sets and weights (made from seeds).
"""
