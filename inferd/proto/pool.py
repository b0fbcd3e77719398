"""The descriptor pool that holds inferd's messages, apart from the process-wide default one."""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

# Filled while the generated modules are imported, constant afterwards.
POOL = DescriptorPool()
