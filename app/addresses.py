"""Which addresses are on the public internet, whatever they are wrapped in."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Azure's host agent answers here inside every virtual machine, at an address that is formally public.
_CLOUD_INTERNAL = frozenset([ipaddress.IPv4Address("168.63.129.16")])


def is_public(address: Address) -> bool:
    """Whether `address`, and every IPv4 address that it carries, is a public unicast address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in _CLOUD_INTERNAL
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None:
        return is_public(address.sixtofour)
    # The rest outside 2000::/3, and Teredo's 2001::/32 inside it, is not for hosts of the public internet.
    return address.is_global and address in _GLOBAL_UNICAST
