/*
 * tool.h - the command `kilorank ckpt`: look at checkpoints without training.
 *
 *   list DIR      every checkpoint of a run: step, size, world, state of its manifest
 *   verify DIR    read every byte and check it
 *   show DIR      tensors and settings
 *   hash DIR      one hash of the logical state, independent of how it is sharded
 *   diff A B      which tensors differ, and by how much
 *   prune DIR     delete all but the newest ones (--keep N)
 *
 * DIR is a run directory (its newest valid checkpoint is meant) or one checkpoint.  No
 * MPI, no HDF5.  Returns a code of scheduler/exitcode.h.
 */
#ifndef CKPT_TOOL_H
#define CKPT_TOOL_H

int ckpt_tool_main(int argc, char **argv); /* argv[0] is "ckpt" */

#endif
