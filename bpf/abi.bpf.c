// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/* Never loaded: makes the compiler describe every record, for the test that compares them with abi.rs. */
#include "kernel.h"
#include "abi.h"

struct record_head described_record_head;
struct fork_record described_fork_record;
struct exec_record described_exec_record;
struct exit_record described_exit_record;
struct rename_record described_rename_record;
struct signal_record described_signal_record;
struct module_record described_module_record;
struct device_record described_device_record;
struct flow_record described_flow_record;
struct volume described_volume;
struct flow_close_record described_flow_close_record;
struct aggregate_key described_aggregate_key;
struct aggregate described_aggregate;
struct flow_chunk_record described_flow_chunk_record;
struct name_answer_record described_name_answer_record;
struct trace_record described_trace_record;
struct written_code_record described_written_code_record;
struct denied_record described_denied_record;
struct thread_record described_thread_record;
struct settings described_settings;
struct block_key described_block_key;
struct block_entry described_block_entry;
struct scoped_block_key described_scoped_block_key;
struct session_key described_session_key;
struct network_key described_network_key;
struct file_key described_file_key;
struct trust_scope described_trust_scope;
struct digest_place described_digest_place;
struct digest_judgement described_digest_judgement;
struct service_profiles described_service_profiles;
struct service_bound described_service_bound;
struct trust_state described_trust_state;
struct judged_record described_judged_record;
struct ended described_ended;
struct probe_key described_probe_key;
struct probe_record described_probe_record;
struct talk_key described_talk_key;
struct rule_set described_rule_set;
struct unit_key described_unit_key;
struct container_key described_container_key;
struct place_key described_place_key;
struct port_key described_port_key;
struct destination_key described_destination_key;
struct name_key described_name_key;
struct outbound_state described_outbound_state;
struct named_key described_named_key;
struct named described_named;
struct answered_key described_answered_key;
struct attempt_key described_attempt_key;
struct attempt described_attempt;
