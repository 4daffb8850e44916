//! What must be true of Keelson, shown in virtual machines. Each test's name is the sentence that it proves.
//!
//! * [`abuse`]: applications at their worst
//! * [`bare`]: machines that lack something
//! * [`boot`]: from the firmware to a running container
//! * [`broken`]: broken input
//! * [`clouds`]: machines that a metadata service tells who they are
//! * [`configuration`]: what a user's configuration makes of a machine
//! * [`corruption`]: bits that change where the operating system is kept
//! * [`docker_api`]: an unmodified client library at both engines
//! * [`errors`]: what is unknown is an error with a position
//! * [`independence`]: what lives on when something else ends
//! * [`install`]: the system onto another disk, and back to how it was delivered
//! * [`kexec`]: starting again without the firmware
//! * [`media`]: discs, sticks, the network, and formats of disk images
//! * [`moments`]: power cuts at every moment of a machine's life
//! * [`networks`]: machines with cables between them
//! * [`power_cut`]: power cuts at random moments
//! * [`power`]: reboot and power off
//! * [`secure_boot`]: signed images
//! * [`services`]: what system services are and may do
//! * [`storage`]: disks that a configuration asks for
//! * [`system_containers`]: containers that clients of Docker's API make
//! * [`system_docker`]: the system engine by Docker's own command line
//! * [`system_images`]: its images
//! * [`system_networks`]: networks and published ports of its containers
//! * [`system_services`]: services of the machine's own, and services that get other images
//! * [`upgrade`]: other versions of the operating system
//! * [`upgrade_policy`]: those that a machine takes by itself

pub mod abuse;
pub mod bare;
pub mod boot;
pub mod broken;
pub mod clouds;
pub mod configuration;
pub mod corruption;
pub mod docker_api;
pub mod errors;
pub mod independence;
pub mod install;
pub mod kexec;
pub mod media;
pub mod moments;
pub mod networks;
pub mod power;
pub mod power_cut;
pub mod secure_boot;
pub mod services;
pub mod storage;
pub mod system_containers;
pub mod system_docker;
pub mod system_images;
pub mod system_networks;
pub mod system_services;
pub mod upgrade;
pub mod upgrade_policy;

use crate::harness::lab::Lab;

/// One test.
pub struct Test {
    /// The sentence that it proves.
    pub name: &'static str,
    /// The module that it stands in.
    pub topic: &'static str,
    /// Proves it, or says why not.
    pub run: fn(&mut Lab) -> anyhow::Result<()>,
}

macro_rules! tests {
    ($($topic:ident: $($name:ident)+;)+) => {
        vec![$($(Test { name: stringify!($name), topic: stringify!($topic), run: $topic::$name }),+),+]
    };
}

/// All tests, in the order in which they run: those that share a booted machine stand together.
pub fn all() -> Vec<Test> {
    tests! {
        boot:
            uefi_boot_reaches_a_login_and_docker_runs_an_image_made_on_the_spot;
        abuse:
            a_fork_bomb_in_a_container_leaves_ssh_and_system_services_alone
            a_container_that_eats_all_memory_leaves_ssh_and_system_services_alone
            a_container_that_fills_the_disk_leaves_ssh_and_system_services_alone;
        power:
            the_power_key_ends_within_15_seconds_with_everything_unmounted_clean
            poweroff_ends_within_15_seconds_with_everything_unmounted_clean
            a_reboot_keeps_containers_images_volumes_host_keys_logs_and_hostname;
        power_cut:
            every_file_reported_written_is_there_after_power_cuts
            an_image_is_there_whole_or_not_at_all_after_power_cuts_while_it_is_pulled;
        bare:
            without_a_disk_there_is_a_login_prompt_and_state_is_in_memory
            without_a_network_there_is_a_login_prompt
            without_a_seed_there_is_a_login_prompt
            without_disk_network_and_seed_there_is_a_login_prompt;
        broken:
            a_machine_without_any_disk_says_which_os_slot_it_misses
            unparsable_user_data_is_named_on_the_console_and_the_boot_goes_on
            a_state_partition_full_of_noise_is_named_on_the_console_and_left_alone
            one_flipped_bit_in_the_os_slot_is_refused_with_a_message
            a_service_with_an_unknown_image_is_named_on_the_console_and_the_others_run;
        corruption:
            one_flipped_bit_in_each_part_has_the_verdict_that_the_table_says
            a_version_whose_slot_decays_is_left_for_the_other_one
            a_version_that_decays_while_it_runs_is_left_in_order_for_the_other_one;
        kexec:
            a_machine_starts_again_without_its_firmware_and_is_there_sooner;
        clouds:
            a_machine_in_a_cloud_is_who_the_metadata_service_says_and_stays_so_without_it
            a_machine_is_who_its_hypervisor_says
            a_machine_of_azures_has_its_custom_data_from_the_disc_and_its_keys_from_the_service;
        configuration:
            a_machine_is_what_all_layers_of_its_configuration_say_and_follows_them;
        storage:
            disks_are_parted_formatted_and_mounted_where_people_and_applications_see_them;
        media:
            one_image_starts_by_uefi_and_bios_from_disc_and_stick_and_by_the_network
            the_disk_image_is_the_same_in_the_formats_of_hypervisors;
        networks:
            two_machines_are_joined_by_bonds_vlans_and_tunnels_and_let_in_what_is_said;
        secure_boot:
            a_signed_image_enrols_its_keys_and_runs_docker_under_secure_boot
            nothing_but_what_was_signed_is_started_under_secure_boot
            arguments_that_nobody_signed_do_not_choose_another_root
            one_flipped_bit_in_the_os_slot_is_refused_under_secure_boot_too
            tools_of_others_find_nothing_wrong_with_a_signed_image;
        services:
            pid_1_is_keelson_init
            the_test_image_has_the_shipped_services_and_its_own_only
            every_system_service_is_a_container_with_its_own_root
            capabilities_of_each_service_equal_its_service_yml
            only_docker_is_privileged_and_every_capability_has_its_reason
            chronyd_hears_of_time_servers_that_come_and_go;
        system_docker:
            the_stock_docker_command_lists_and_inspects_system_containers
            the_stock_docker_command_stops_starts_and_reads_system_containers
            mistakes_of_docker_users_are_answered_as_dockerd_does;
        system_containers:
            a_container_of_the_system_engine_is_run_as_docker_runs_one
            containers_of_the_system_engine_are_managed_with_dockers_verbs
            a_container_that_runs_out_of_memory_is_reported_so
            killing_the_engine_loses_no_container_status_or_line;
        system_images:
            an_image_is_pulled_from_a_registry_and_run_by_the_system_engine
            images_go_from_dockerd_to_the_system_engine_and_back;
        system_networks:
            containers_meet_in_networks_and_are_reached_at_published_ports
            docker_compose_runs_a_project_on_the_system_engine;
        docker_api:
            a_client_library_hears_the_same_from_both_engines;
        system_services:
            a_compose_file_becomes_a_service_that_is_upgraded_and_goes_back_by_itself
            services_have_networks_ports_sockets_and_limits_on_disks
            the_network_service_is_upgraded_and_applications_do_not_notice
            console_and_user_engine_are_switched_and_keep_what_is_theirs
            a_debian_console_has_apt_and_keeps_what_it_installs
            services_of_a_cloud_config_run_where_rancheros_ran_them;
        moments:
            a_database_lives_through_upgrades_and_a_power_cut_at_any_moment_of_them;
        upgrade:
            a_new_version_is_verified_started_and_judged_and_what_fails_goes_back_and_says_why
            a_machine_with_bios_is_upgraded_judged_and_goes_back_by_the_same_rules;
        upgrade_policy:
            a_machine_upgrades_by_itself_and_goes_back_when_a_check_of_its_owner_fails;
        install:
            a_running_system_is_installed_on_another_disk_which_starts_alone_and_is_reset
            a_cloud_config_has_the_system_installed_and_the_disk_starts_by_bios;
        independence:
            docker_containers_are_unseen_by_and_outlive_console_log_and_engine
            killing_the_engine_kills_no_container_and_loses_no_log_line;
        errors:
            unknown_words_to_the_keelson_command_are_errors_that_name_them
            an_unknown_key_in_a_service_yml_is_reported_with_its_position
            an_unknown_key_in_a_recipe_is_reported_with_its_position;
    }
}
