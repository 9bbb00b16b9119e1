"""Every kind of store that the suite is for."""

from contract.stores.case_axis import AXIS
from contract.stores.case_memory import MEMORY, OBJECTS, PARTS
from contract.stores.case_receiver import RECEIVER
from contract.stores.case_s3 import CEPH_S3, SEAWEED_S3
from contract.stores.case_tus import NODE, SEAWEED

KINDS = (MEMORY, OBJECTS, PARTS, RECEIVER, SEAWEED_S3, CEPH_S3, AXIS, NODE, SEAWEED)
