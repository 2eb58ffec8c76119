"""Environment variables that were settings. A process that has one of them says so when it starts."""

import logging
from collections.abc import MutableMapping

from sds_clip.app import logs

logger = logging.getLogger(__name__)

_NAMES = """
swap_poll_s max_versions version_wait_s decode_threads text_cache_size class_cache_bytes class_wait_s body_timeout_s
max_texts max_labels max_templates max_text_chars max_image_bytes min_upload_bytes_per_s max_upload_time_s max_uploads
max_steps max_log_points max_keep_checkpoints max_interruptions max_event_streams store_threads url_timeout_s
url_max_redirects max_version_loads_per_key max_requests_per_key max_queue_per_key max_buffered_bytes_per_key
max_body_bytes_per_s_per_key max_event_streams_per_key max_uploads_per_key max_open_jobs_per_key stall_timeout_s
watch_every_s retry_base_s report_every_s reap_every_s checks_datasets check_ttl_s max_job_bytes min_save_interval_s
feature_cache_bytes idle_tick_s keep_events_s
"""
RETIRED = frozenset(_NAMES.split())
"""docs/how-to/upgrade.md says what counts in the place of each."""


def name_retired(environment: MutableMapping[str, str], level: str, log_format: logs.Format) -> None:
    """Log a warning that names the retired variables, and take them out, so that no child process names them again."""
    variables = {f"sds_clip_{name}" for name in RETIRED}
    found = sorted(name for name in environment if name.lower() in variables)
    for name in found:
        del environment[name]
    if found:
        logs.configure(level, log_format)
        logger.warning(
            "These variables are no longer settings and have no effect: %s. Remove them; docs/how-to/upgrade.md says "
            "what counts in their place.",
            ", ".join(found),
        )
