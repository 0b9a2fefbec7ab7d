/*
 * comm_room.c - what NCCL takes for itself, estimated.
 *
 * It has a buffer for each connection in each channel, of each of its three protocols, on
 * the side that receives (src/init.cc and src/include/device.h of NCCL 2.28: 4 MiB for
 * Simple, which NCCL_BUFFSIZE sets, 8 x 512 x 8 x 16 bytes for LL, 120 x 640 x 8 x 8 for
 * LL128).  How many channels it opens depends on the machine: counted is the most of one
 * ring, and for messages, which a canonical reduction is made of, about what it gives a
 * peer on NVLink.  Peers on other nodes share one set of buffers.  An estimate: never
 * measured on GPUs.
 */
#include "comm/comm.h"

enum {
    CONNECTION = (4 << 20) + 8 * 512 * 8 * 16 + 120 * 640 * 8 * 8, /* bytes */
    RING_CHANNELS = 32,
    PEER_CHANNELS = 8,
    NODE_PEERS = 7 /* GPUs of a node but one */
};

size_t comm_nccl_bytes(int32_t size)
{
    int32_t peers = size - 1 < NODE_PEERS ? size - 1 : NODE_PEERS;
    bool far = size - 1 > NODE_PEERS;

    if (size == 1) return 0;
    return (size_t)CONNECTION *
           (size_t)(RING_CHANNELS + PEER_CHANNELS * (peers + (far ? 1 : 0)));
}
